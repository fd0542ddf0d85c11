"""Masks as COCO run lengths: checked once where they are read, compared without ever being decoded."""

from typing import Any

Rle = dict[str, Any]
"""COCO run lengths of one mask: `size` [height, width] and `counts`, column by column."""
