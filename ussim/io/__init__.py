"""Files of channel data, and the plain values they hold."""
