"""Imported by the process from which workers are forked, so that they start with torch and matplotlib at hand."""

from papercode.site.worker import warm_up

warm_up()
