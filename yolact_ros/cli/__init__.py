"""Implement the `yolact` command: one file per verb, imported only when that verb is called."""
