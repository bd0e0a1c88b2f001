"""What is asked, how an answer is collected and graded."""
