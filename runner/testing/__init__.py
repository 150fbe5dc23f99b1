"""For tests of plugins: the checks of a stage as a test class, and a folder to run manifests in.

::

    from runner.testing import Project, StageContract, project
"""

from runner.testing.contract import StageContract
from runner.testing.project import Outcome, Project, project

__all__ = ["Outcome", "Project", "StageContract", "project"]
