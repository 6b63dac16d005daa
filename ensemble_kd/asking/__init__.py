"""Asking teachers: live or once for all, from here, from other processes or other machines."""
