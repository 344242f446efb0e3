"""Where a weight lies between two rounding boundaries, for quantizers that are scanned for and never attacked here."""
