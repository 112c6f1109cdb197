"""The CloudFormation stack: template, plan and apply, describe, destroy."""
