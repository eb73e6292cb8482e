"""From raw file to table: one file per rule file of the workflow, and what goes with it.

A stage reads its files, calls the rooms that know how, and writes its files. It contains no
arithmetic, and no command line; `layout` says where everything lies.
"""
