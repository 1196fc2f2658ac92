"""``edgeface serve``: a live page and a REST API, for one machine or a trusted network.

Needs the extra ``serve``. ``app.py`` holds the routes, ``limits.py`` what guards them, ``live.py``
the preview, ``run.py`` the socket and the shutdown; ``page.*`` is the page.
"""
