"""The executor of the guide for plugins: agents that a command starts, as processes whose pipes are here."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[1] / "plugins/README.md"
(AWAY,) = re.findall(r"```python\n# away\.py\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
