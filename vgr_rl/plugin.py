"""What verl loads in every process (entry point group `verl.plugins`).

verl imports this module and ignores everything in it; importing it is the registration. verl also logs a failing
plug-in at DEBUG only, so the task runner checks that this module was imported and stops when it was not.
"""

import os

from vgr_rl import verl_patches

verl_patches.apply()

if os.environ.get("VERL_PLATFORM", "").lower() == "cpu":
    from vgr_rl.cpu import platform  # noqa: F401  registers the platform
