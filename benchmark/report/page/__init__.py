"""The page of a results folder: one HTML file that needs no network, no server and no other file.

`content` turns tables into what the page shows, `charts` draws its figures, `svg` makes them follow the page's theme,
`pictures` embeds what `make figures` drew, and `render` writes the HTML.
"""
