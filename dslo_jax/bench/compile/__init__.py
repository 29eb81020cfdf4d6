"""Stages compiled for chips that are not there, and what their compilers made."""
