"""Sphinx: `make docs` builds the site into build/docs, and a warning is an error."""

import importlib

# Before autodoc does: it imports with typing.TYPE_CHECKING on, with which LlamaIndex's own modules break.
for name in (
    "llama_index.core",
    "torch",
    "transformers",
    "langchain_confroute.doctor",
    "llamaindex_confroute.testing",
):
    importlib.import_module(name)

project = "confroute"
author = "The confroute authors"
copyright = "The confroute authors, Apache-2.0"  # noqa: A001  Sphinx's name
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.apidoc",
]
html_theme = "furo"
html_title = "confroute"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Reference pages come from the docstrings alone.
apidoc_modules = [
    {
        "path": f"../{path}",
        "destination": f"api/{path.rpartition('/')[2]}",
        "separate_modules": True,
        "max_depth": 1,
    }
    for path in ("shared/confroute", "langchain_confroute", "llamaindex_confroute")
]
apidoc_module_first = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
# Classes of the hosts bring hundreds of members of their own.
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "undoc-members": False,
    "ignore-module-all": True,
}
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Re-exported names stand at their home and in the package's page.
suppress_warnings = ["ref.python", "autodoc.import_object.duplicate"]

# Pages of wide tables give up the list of their sections; some are written by commands, which know nothing of themes.
WIDE = {"comparison", "providers", "results", "results/replay", "results/recorded"}


def setup(app):  # noqa: ANN001, ANN201, D103  Sphinx's own hook
    app.connect(
        "env-updated",
        lambda _, env: (
            [env.metadata[name].update({"hide-toc": ""}) for name in WIDE] and []
        ),
    )
