"""The site of documentation: what makes it of the pages in `docs/`.

    hooks          what mkdocs calls while it builds: files outside of docs/, diagrams, the address
    mermaid        fetches the script that draws the diagrams, by version and checksum
    configuration  writes the pages of settings from their schema
    routes         writes the page of the gateway's routes from its application
    written_pages  python -m website.written_pages writes both, and the page of changes

`make docs` builds the site into `build/site`. The room looks on from outside: no other imports it.
"""
