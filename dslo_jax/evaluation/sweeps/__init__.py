"""Configurations measured on the same photos, by runs that survive being killed."""
