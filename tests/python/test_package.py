# SPDX-License-Identifier: Apache-2.0
"""What is packed, what it needs, that the examples run and the README's Python is true."""

import doctest
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import nvfp4
import pytest
from conftest import ROOT

VERSION = re.search(r"project\(nvfp4 VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
SOURCES = {f"nvfp4/{p.relative_to(ROOT / 'tools/python/nvfp4')}" for p in (ROOT / "tools/python/nvfp4").rglob("*") if p.suffix in (".py", ".pyi", ".typed")}


@pytest.fixture
def wheel():
    path = os.environ.get("NVFP4_WHEEL")
    if not path:
        pytest.skip("NVFP4_WHEEL does not name the wheel")
    return Path(path)


def test_one_version():
    assert nvfp4.__version__ == VERSION


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    assert re.fullmatch(rf"nvfp4-{VERSION}-cp310-abi3-\w+\.whl", wheel.name)
    info = f"nvfp4-{VERSION}.dist-info/"
    with zipfile.ZipFile(wheel) as z:
        names = set(z.namelist())
        metadata = z.read(info + "METADATA").decode()
    cuda = {"nvfp4/_nvfp4_cuda.abi3.so"}  # where it was built with nvcc
    assert names - cuda == SOURCES | {"nvfp4/py.typed", "nvfp4/_nvfp4.abi3.so"} | {info + n for n in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert len(required) == 1 and "numpy" in required[0]
    assert importlib.metadata.version("nvfp4") == VERSION


def test_the_module_needs_only_system_libraries(wheel, tmp_path):
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not there")
    with zipfile.ZipFile(wheel) as z:
        module = z.extract("nvfp4/_nvfp4.abi3.so", tmp_path)
    dynamic = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    allowed = r"(libc|libm|libgcc_s|libstdc\+\+|libgomp|libomp|libcrypto|ld-linux.*)\.so.*"
    assert all(re.fullmatch(allowed, name) for name in needed), needed
    symbols = subprocess.run(["readelf", "--dyn-syms", "-W", module], capture_output=True, text=True, check=True).stdout
    defined = [line.split()[-1] for line in symbols.splitlines() if re.search(r"GLOBAL +DEFAULT +\d", line)]
    assert defined == ["PyInit__nvfp4"]


def test_the_module_keeps_to_the_limited_api(wheel):
    audit = pytest.importorskip("abi3audit", reason="abi3audit is not there")
    assert audit
    done = subprocess.run([sys.executable, "-m", "abi3audit", "--strict", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_source_distribution_configures_and_carries_no_vectors(tmp_path):
    build = pytest.importorskip("scikit_build_core.build")
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not there")
    here = os.getcwd()
    os.chdir(ROOT)
    try:
        name = build.build_sdist(str(tmp_path))
    finally:
        os.chdir(here)
    assert name == f"nvfp4-{VERSION}.tar.gz"
    with tarfile.open(tmp_path / name) as t:
        names = {n.split("/", 1)[1] for n in t.getnames()}
        t.extractall(tmp_path)
    assert {"CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md", "PKG-INFO"} <= names
    top = {n.split("/")[0] for n in names}
    assert top == {"CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md", "PKG-INFO", "emulator", "golden", "gpu", "reference_models", "tools"}
    # sources, what configures them, and the README of each folder
    assert not [n for n in names if not re.search(r"\.(cpp|hpp|cu|cuh|inc|h|h\.in|hpp\.in|py|pyi|typed|md|toml)$|CMakeLists\.txt$|\.cmake(\.in)?$|^LICENSE$|^PKG-INFO$", n)]
    assert not [n for n in names if n.endswith(".py") and not n.startswith("tools/python/")]
    assert not [n for n in names if n.startswith(("golden/vectors", "golden/training", "gpu/probes", "tools/nvfp4", "tests"))]
    assert (tmp_path / name).stat().st_size < 2 << 20
    done = subprocess.run(
        ["cmake", "-S", tmp_path / f"nvfp4-{VERSION}", "-B", tmp_path / "b", "-DSKBUILD=2", "-DNVFP4_PYTHON=ON", "-DNVFP4_CUDA=OFF",
         f"-DPython_EXECUTABLE={sys.executable}"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_imports_need_numpy_alone():
    code = "import sys, nvfp4; print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'ml_dtypes', 'safetensors'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_types_check():
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not there")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml"], cwd=ROOT / "tools/python", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_readme_tells_the_truth(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```pycon\n(.*?)```", text, re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "golden").symlink_to(ROOT / "golden")
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "README.md", "README.md", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test).failed == 0 and runner.tries > 3


EXAMPLES = ROOT / "tools/python/examples"


def test_example_kernel():
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES / "test_kernel.py"], capture_output=True, text=True)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout


def test_example_fake_quantization():
    pytest.importorskip("torch", reason="PyTorch is not there")
    done = subprocess.run([sys.executable, EXAMPLES / "fake_quantization.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    quantizer, product, real = done.stdout.splitlines()
    assert "equal" in quantizer and "BF16 GEMM" in product and "equal" in real


def test_results_are_plain_arrays():
    # results are plain arrays over the library's memory, writable as any other
    d = nvfp4.quantize(np.ones((16, 64), np.float32)).dequantize()
    d[0, 0] = 2
    assert type(d) is np.ndarray and d.flags.writeable and d.flags.c_contiguous
