import subprocess
import sys

SAY = """
from vgr_rl.config.entry import start_logging
start_logging()
from huggingface_hub.utils import logging
logging.get_logger("huggingface_hub.utils._http").warning("Retrying in 1s")
"""


def test_a_message_of_the_hub_is_said_once() -> None:
    said = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True).stderr
    assert said.count("Retrying in 1s") == 1
