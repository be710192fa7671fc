"""The site engine: bibliography, notes, snippets, the MkDocs plugin and the `papercode` command; never imports torch."""
