"""Objectives: pure, stateless functions of features and ids, one a file."""
