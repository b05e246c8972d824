"""The site: `make docs` builds it with Sphinx from the guides, the tutorials and the docstrings.

The pages are Markdown that is also readable on a code host. MyST-NB executes the tutorials, which are
notebooks as text.
"""

import os
import sys
from pathlib import Path

import dropzoo

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

# The tutorials inherit this. They call the `dropzoo` of this environment, and show
# what Python prints, without the log lines of TensorFlow's libraries.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ["IPYTHONDIR"] = str(DOCS / "_build" / "ipython")
profile = DOCS / "_build" / "ipython" / "profile_default" / "ipython_kernel_config.py"
profile.parent.mkdir(parents=True, exist_ok=True)
profile.write_text(
    "c.IPKernelApp.capture_fd_output = False\n"
    "c.InlineBackend.print_figure_kwargs = {'dpi': 110, 'bbox_inches': 'tight'}\n"
)

project = "dropzoo"
author = "the dropzoo authors"
copyright = "the dropzoo authors, Apache-2.0"
release = version = dropzoo.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "generated",
    "tutorials",
]
exclude_patterns = ["_build", "images", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
smartquotes = False  # options and code in texts are to be copied as they are
suppress_warnings = ["config.cache"]  # functions in the configuration cannot be pickled; nothing else is lost

# Markdown
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "attrs_inline", "substitution"]
myst_heading_anchors = 3
myst_url_schemes = ["http", "https", "mailto"]

# Tutorials. A page is executed again only if its code has changed.
nb_execution_mode = os.environ.get("DROPZOO_DOCS_EXECUTION", "cache")
nb_execution_timeout = 600  # seconds for a cell: a busy machine may take long
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True  # a tutorial writes files
nb_merge_streams = True

# The API, from the docstrings
autosummary_generate = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.glob("api/*.rst"))
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # a method that Keras explains has no text of its own
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
napoleon_custom_sections = [
    ("Call arguments", "params_style"),
    "Input shape",
    "Output shape",
    "Reference",
]
default_role = "py:obj"  # single backticks in docstrings: a link where there is a page, code elsewhere
viewcode_line_numbers = True

html_theme = "sphinx_book_theme"
html_title = "dropzoo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = True
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "use_edit_page_button": False,
    "use_source_button": False,
    "use_issues_button": False,
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "navigation_with_keys": False,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
