"""Lambda, API Gateway and CloudWatch Logs on this machine, for one function; it never imports the function."""
