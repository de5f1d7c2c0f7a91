"""What the Lambda layer holds and how it is made; nothing here runs in Lambda."""
