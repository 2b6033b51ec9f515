"""Recognise the neurons and Cells of one step."""
