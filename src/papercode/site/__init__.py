"""The site engine: bibliography, notes, snippets, the MkDocs plugin, the `papercode` command. Without torch."""
