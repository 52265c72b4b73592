"""The agents' REST API, one file for each endpoint or small family; ``app.py`` puts them together. A further dialect of
it has its own folder beside this one, and shares the services, the guard and ``quart_application.py``.
"""
