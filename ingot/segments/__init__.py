"""Blocks into durable bytes, and back: the segment store.

Read ``store`` first, then ``format`` (what is on disk), ``log`` and ``body`` (how it gets there),
``seal`` and ``index`` (how it is found again) and ``recovery`` (what a start makes of it).
"""
