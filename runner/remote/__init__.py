"""Stages on other machines: agents, which run them there, and the executor that feeds agents from here."""
