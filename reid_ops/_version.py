"""The version number, kept here and nowhere else (setup.py, CMake and the C++ side read this file)."""

__version__ = "0.1.0"
