"""What the wheel holds, and what importing it loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest

import confroute

ROOT = Path(__file__).parents[1]
PACKAGES = ("confroute", "langchain_confroute", "llamaindex_confroute")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_holds_the_three_packages_only(wheel):
    """Neither `shared` nor tests nor examples are shipped."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES, "llama_index", f"confroute-{version('confroute')}.dist-info"}
    shim = {name for name in wheel.namelist() if name.startswith("llama_index/")}
    assert shim == {"llama_index/llms/confroute/__init__.py"}


def test_the_long_description_holds_what_an_index_can_show(wheel):
    """The README's words, without pictures and links that only this folder has."""
    info = f"confroute-{version('confroute')}.dist-info"
    told = wheel.read(f"{info}/METADATA").decode().partition("\n\n")[2]
    assert "# confroute" in told
    assert "<picture>" not in told
    targets = re.findall(r"\]\(([^)]+)\)", told)
    assert [target for target in targets if not target.startswith("https://")] == []


def test_wheel_is_typed_licensed_and_has_the_command(wheel):
    """Type checkers, lawyers and shells find what they look for."""
    names = wheel.namelist()
    info = f"confroute-{version('confroute')}.dist-info"
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert f"{info}/licenses/LICENSE" in names
    assert "confroute = confroute.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


@pytest.mark.parametrize(
    ("extra", "wanted", "unwanted"),
    [
        ("langchain", "langchain-core", ("torch", "transformers", "llama-index-core")),
        ("llamaindex", "llama-index-core", ("torch", "transformers", "langchain-core")),
        ("local", "torch", ("langchain-core", "llama-index-core")),
        (None, "numpy", ("torch", "transformers", "langchain-core", "llama-index-core")),
    ],
)
def test_extras_are_separate(extra, wanted, unwanted):
    """Each extra asks for its own host only, and the core for none."""
    names = set()
    for line in requires("confroute") or ():
        requirement, _, marker = line.partition(";")
        of = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if (of.group(1) if of else None) == extra:
            names.add(re.split(r"[^\w.-]", requirement.strip())[0])
    assert wanted in names
    assert not names & set(unwanted)


@pytest.mark.parametrize("module", ["confroute", "confroute.cli", "confroute.testing"])
def test_core_imports_no_heavy_package(module):
    """The core loads neither hosts nor torch nor what only the command line needs."""
    heavy = (
        "torch",
        "transformers",
        "langchain",
        "llama_index",
        "rich",
        "httpx",
        "huggingface_hub",
        "filelock",
    )
    code = f"import sys, {module}; print([n for n in sys.modules if n.startswith({heavy!r})])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


PINNED = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def test_the_lock_is_by_hash_and_holds_the_pins():
    """Each package with the files that it may be; where constraints.txt pins one too, the same version; torch is left out."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"\n(?=\w)", lock) if PINNED.match(entry)]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    locked = {PINNED.match(entry)[1]: PINNED.match(entry)[2] for entry in entries}
    assert not re.search(r"^-|://", lock, re.MULTILINE)
    pinned = dict(PINNED.findall((ROOT / "constraints.txt").read_text(encoding="utf-8")))
    assert {name: locked[name] for name in pinned.keys() & locked} == {
        name: pinned[name] for name in pinned.keys() & locked
    }
    assert "torch" in pinned


def test_the_lock_holds_what_users_install():
    """What the core and the extras of `all` ask for by name, in versions that they take."""
    packaging = pytest.importorskip("packaging.requirements")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(PINNED.findall(lock))
    extras = ("", "langchain", "llamaindex", "local", "prices")
    asked = [packaging.Requirement(line) for line in requires("confroute") or ()]
    asked = [
        one
        for one in asked
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    ]
    assert {"numpy", "langchain-core", "llama-index-core", "torch"} <= {one.name for one in asked}
    lacking = {one.name for one in asked if locked.get(one.name) not in one.specifier}
    # An editable install asks for `editables` too.
    assert lacking - {"editables"} == {"torch"}


def test_version_is_the_distribution_s():
    """`__version__` and the metadata agree."""
    assert confroute.__version__ == version("confroute")


@pytest.mark.skipif(
    not os.environ.get("CONFROUTE_TEST_WHEEL"), reason="only `make release` installs the wheel"
)
@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_is_what_is_tested(package):
    """In the wheel's own environment the sources cannot be imported in its place."""
    imported = __import__(package)
    assert Path(imported.__file__).is_relative_to(sysconfig.get_paths()["purelib"])
