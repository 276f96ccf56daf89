"""Meshes: coloured triangles in metres, +Y up, +Z to the front."""
