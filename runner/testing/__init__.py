"""For the tests of a plugin: a contract that every stage keeps, and a project to run manifests in.

::

    from runner.testing import Project, StageContract, project
"""

from runner.testing.contract import StageContract
from runner.testing.project import Outcome, Project, project

__all__ = ["Outcome", "Project", "StageContract", "project"]
