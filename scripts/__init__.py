"""Scripts for people and for CI; a package so that they find each other."""
