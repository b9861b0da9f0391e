"""Deployment: an app, declared once; RegionalDeployment: what one region makes of it.

`kind.py` says what both hold, `controller.py` fans one out into the others and folds their status back,
`driver.py` decides what a zone starts and stops.
"""
