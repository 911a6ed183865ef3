"""The Python API: the verbs as functions.  ``rain_deploy`` itself offers them."""
