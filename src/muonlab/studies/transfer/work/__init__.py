"""The jobs of the transfer study: training at several rates, and the first steps of the coordinate check."""
