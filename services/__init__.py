"""The services of Kehu and the chassis they are bolted to."""
