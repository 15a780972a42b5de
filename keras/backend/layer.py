"""The mixin every Keras layer inherits on tfn: nothing is needed."""


class BackendLayer:
    """No backend-specific state."""
