"""What comes with time: retention under legal holds, and the stages of a customer's life."""
