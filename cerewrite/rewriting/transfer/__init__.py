"""Carrying trained weights into members: which channels, in which groups, fitted how."""

from cerewrite.rewriting.transfer.fitting import Fit, fit_block
from cerewrite.rewriting.transfer.grouping import Interior, group_channels
from cerewrite.rewriting.transfer.patches import Rows, read_rows, written_rows
from cerewrite.rewriting.transfer.pieces import blocks_of, dense_weight, store_block, take_channels

__all__ = [
    "Fit",
    "Interior",
    "Rows",
    "blocks_of",
    "dense_weight",
    "fit_block",
    "group_channels",
    "read_rows",
    "store_block",
    "take_channels",
    "written_rows",
]
