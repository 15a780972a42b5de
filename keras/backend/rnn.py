"""Recurrent layers: Keras's generic step-by-step path.

The fused entry points say they do not apply, and Keras then runs the cell over time with `rnn`.
"""

from __future__ import annotations

from .missing import missing


def cudnn_ok(*args, **kwargs) -> bool:
    """There is no cuDNN here."""
    return False


rnn = missing("rnn")
lstm = missing("lstm")
gru = missing("gru")
bidirectional_lstm = missing("bidirectional_lstm")
bidirectional_gru = missing("bidirectional_gru")
