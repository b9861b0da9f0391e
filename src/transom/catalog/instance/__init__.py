"""Instance: one running copy of an app. Regions originate it; nobody declares it."""
