"""The photographs: which files of the installed scikit-image package they are, and whether they are the ones boxed.

The files are read where the package has them; scikit-image itself is not imported and nothing is downloaded.
"""

import hashlib
import importlib.util
import io
from pathlib import Path

from PIL import Image

from vgr_rl.errors import ConfigError

# SHA-256 of the files that the boxes were drawn on; scikit-image has replaced photographs before.
SHA256 = {
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "cell.png": "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "clock_motion.png": "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "microaneurysms.png": "a1e1be59aa447f8ce082f7fa809997ab369a2b137cb6c4202abc647c7ccf6456",
    "moon.png": "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    "page.png": "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
    "retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    "text.png": "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
}
_FILE_OF_IMAGE = {Path(file).with_suffix(".png").name: file for file in SHA256}
IMAGES = tuple(sorted(_FILE_OF_IMAGE))
_INSTALL = "install it with `pip install scikit-image==0.26.0`"


def photograph(image: str) -> Image.Image:
    """Return a photograph, as RGB, by the name that the questions give it (`rocket.png`).

    Raises:
        ConfigError: when scikit-image is not installed or has another photograph under this name.
        ValueError: when `image` is not one of `IMAGES`.
    """
    if image not in _FILE_OF_IMAGE:
        raise ValueError(f"image={image!r} but the photographs are {', '.join(IMAGES)}")
    file = _FILE_OF_IMAGE[image]
    path = _data_folder() / file
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: this release of scikit-image does not ship {file}; {_INSTALL}")
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256[file]:
        raise ConfigError(
            f"{path} has SHA-256 {found[:12]}… but the boxes were drawn on {SHA256[file][:12]}…; {_INSTALL}"
        )
    with Image.open(io.BytesIO(content)) as opened:
        return opened.convert("RGB")


def _data_folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the photos recipe needs the photographs of scikit-image; {_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "data"
