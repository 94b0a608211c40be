"""All packaging of `keypoint-lift`; `pyproject.toml` only names the build backend and the tools' settings."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (ROOT / "lifting" / "__init__.py").read_text("utf-8"), re.M).group(1)

# mediapipe 0.10.21, the last release whose wheel holds the pose graphs, has wheels for these versions of Python only.
DETECTOR_PYTHONS = 'python_version >= "3.10" and python_version < "3.13"'

setup(
    name="keypoint-lift",
    version=VERSION,
    description="Detected 2D keypoints to 3D human motion, from one command, on a CPU",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The lift authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    keywords="3d human pose estimation, motion capture, keypoints, video",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    py_modules=["lift"],
    packages=[
        *find_packages(str(ROOT), include=["lifting", "lifting.*"]),
        "lifting.detectors",
        *(f"lifting.detectors.{name}" for name in find_packages(str(ROOT / "detectors"))),
    ],
    package_dir={"lifting.detectors": "detectors"},
    package_data={"lifting": ["py.typed", "weights/*.safetensors", "weights/*.npz", "weights/*.md", "demo/*.npz"],
                  "lifting.view": ["assets/*"]},
    include_package_data=False,
    entry_points={"console_scripts": ["lift = lifting.cli:main"]},
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "scipy>=1.11",
        "h5py>=3.10",
        "matplotlib>=3.8",
        "click>=8.1",
        "tqdm>=4.66",
        "safetensors>=0.4",
        "threadpoolctl>=3",
        "pillow>=10.1",
        'tomli>=2; python_version < "3.11"',
    ],
    extras_require={
        "video": [
            "av>=14",
            f"ai-edge-litert>=2.0; {DETECTOR_PYTHONS}",
            f"mediapipe==0.10.21; {DETECTOR_PYTHONS}",
        ],
        "rtmlib": ["rtmlib>=0.0.16", "onnxruntime>=1.20"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"],
        "h36m": ["cdflib>=1.2"],
        "c3d": ["ezc3d>=1.5"],
        "ray": ["ray>=2.40"],
        "log": ["tensorboard>=2.17"],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        "test": [
            *("pytest>=8", "hypothesis>=6.100", "pygltflib>=1.16", "cdflib>=1.2", "ezc3d>=1.5", "ray>=2.40"),
            *("onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"),
        ],
    },
    zip_safe=False,
)
