Mismatch=record=replay=None
