"""Sphinx's configuration; `bash scripts/docs.sh` builds the site."""

project = "vgr-rl"
author = "the vgr-rl authors"
extensions = ["myst_parser"]
root_doc = "docs/index"
html_theme = "furo"
html_title = "vgr-rl"
html_extra_path = ["redirect"]  # index.html at the top
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 3
