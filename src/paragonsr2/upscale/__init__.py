"""Tiling, engines, the upscaler, and jobs of many files."""
