"""Received signals: sparse and grid operators."""
