"""Devices that compute: which there are (no torch needed), and one interface to all kinds (``backends``)."""
