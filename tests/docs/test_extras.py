"""What an error tells people to install exists."""

import ast
import functools
import json
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_extra_that_is_named_exists():
    """`pip install 'confroute[x]'` in an error, a docstring or the README installs something."""
    known = set(metadata("confroute").get_all("Provides-Extra"))
    texts = [ROOT / "README.md", *ROOT.glob("*_confroute/**/*.py"), *(ROOT / "shared").rglob("*.py")]
    named = set()
    for path in texts:
        text = path.read_text(encoding="utf-8")
        named |= {extra for group in re.findall(r"confroute\[([\w,]+)\]", text) for extra in group.split(",")}
        named |= set(re.findall(r'MissingExtraError\(\s*extra="(\w+)"', text))
    assert {"langchain", "llamaindex", "local"} <= named
    assert named <= known


def sites():
    """(place, arguments, modules that the `try` before it imports) of every error of a missing package."""
    sources = [*ROOT.glob("*_confroute/**/*.py"), *(ROOT / "shared").rglob("*.py")]
    for path in sources:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tries = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtraError":
                around = [one for one in tries if any(node in ast.walk(handler) for handler in one.handlers)]
                modules = {
                    module for one in around[-1:] for statement in one.body for module in imported(statement)
                }
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                yield pytest.param(given, modules, id=f"{path.relative_to(ROOT)}:{node.lineno}")


def imported(statement):
    """The modules that a statement imports."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [f"{statement.module}.{alias.name}" for alias in statement.names]
    return []


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_by(requirements):
    """What a list of requirements installs, as far as it is installed here."""
    names, waiting = set(), list(requirements)
    while waiting:
        requirement, _, marker = waiting.pop().partition(";")
        name = normal(re.match(r"[\w.-]+", requirement)[0])
        if "extra ==" not in marker and name not in names:
            names.add(name)
            with suppress(PackageNotFoundError):
                waiting += requires(name) or ()
    return names


@functools.cache
def extras():
    """What each extra installs."""
    return dict(_extras())


def _extras():
    lines = [line.partition(";") for line in requires("confroute") or ()]
    for extra in set(metadata("confroute").get_all("Provides-Extra")) - {"dev", "docs"}:
        of = [line for line, _, marker in lines if re.search(rf"extra == ['\"]{extra}['\"]", marker)]
        own = {line for line in of if not line.startswith("confroute[")}
        inner = [name for line in of for name in re.findall(r"confroute\[([\w,]+)\]", line)]
        for name in ",".join(inner).split(","):
            own |= {
                line for line, _, marker in lines if name and re.search(rf"extra == ['\"]{name}['\"]", marker)
            }
        yield extra, installed_by(line for line in own if not line.startswith("confroute["))


@functools.cache
def holders():
    """The packages that hold each module, of those that are installed."""
    return packages_distributions()


def distributions(module):
    """The packages that hold a module; by its name where it is not installed."""
    top = module.partition(".")[0]
    if top == "llama_index":
        return {normal("-".join(["llama_index", *module.split(".")[1:-1]])), "llama-index-core"}
    return {normal(name) for name in holders().get(top, [top])}


@pytest.mark.parametrize(("given", "modules"), [*sites()])
def test_an_error_names_the_smallest_install(given, modules):
    """One extra or one package, which installs what could not be imported; no smaller extra does."""
    assert ("extra" in given) != ("package" in given)
    modules = [module for module in modules if module.partition(".")[0] != "confroute"]
    if "package" in given or not modules:
        return
    named = given["extra"].value
    sizes = {
        extra: len(names)
        for extra, names in extras().items()
        if all(distributions(module) & names for module in modules)
    }
    assert named in sizes, f"{named} does not install {sorted(modules)}"
    assert sizes[named] == min(sizes.values()), sizes


# What is large, and who may bring it.
LARGE = {
    "torch": "local",
    "transformers": "local",
    "langchain-core": "langchain",
    "llama-index-core": "llamaindex",
}
BRINGS = {
    "agents": "langchain",
    "all": "langchain llamaindex local",
    "demo": "langchain llamaindex local",
    "ollama": "langchain llamaindex",
}


def commands():
    """Every `pip install` of the pages and the sources, and every extra, as words; `.` is our own package."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.ipynb")]
    sources = [*ROOT.glob("*_confroute/**/*.py"), *(ROOT / "shared").rglob("*.py")]
    users = set(metadata("confroute").get_all("Provides-Extra")) - {"dev", "docs"}
    wanted = {(f"confroute[{extra}]",) for extra in users}
    for path in [*pages, *sources]:
        text = path.read_text(encoding="utf-8")
        # Words of the sentence around it hold no hyphen.
        for found in re.findall(r"pip install ((?:'[^'\n]+'|\w[\w.-]*)(?: \w+-[\w-]+)*)", text):
            words = shlex.split(found)
            wanted |= {tuple(re.sub(r"^\.", "confroute", word) for word in words if "..." not in word)}
        wanted |= {(package,) for package in re.findall(r'package = "([\w-]+)"', text)}
    return wanted - {()}


def test_the_commands_are_found():
    """Those of a page, of an error and of a variable."""
    found = commands()
    assert {
        ("confroute[redis]",),
        ("confroute[langchain]",),
        ("confroute[langchain]", "langchain-openai"),
        ("llama-index-llms-ollama",),
    } <= found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", sorted(commands()), ids=" ".join)
def test_what_one_is_told_to_install_can_be_installed(command, tmp_path):
    """As if nothing were installed yet; and no host and no torch come with what does not ask for them."""
    here = [re.sub(r"^confroute(?=\[|$)", str(ROOT), one) for one in command]
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    done = subprocess.run([*pip, "--report", report, *here], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = {normal(one["metadata"]["name"]) for one in json.loads(report.read_text())["install"]}
    assert told
    if all("[" in word for word in command):
        extras = {name for word in command for name in re.findall(r"[\w-]+", word.partition("[")[2])}
        allowed = extras | {part for name in extras for part in BRINGS.get(name, "").split()}
        assert not told & {package for package, extra in LARGE.items() if extra not in allowed}
